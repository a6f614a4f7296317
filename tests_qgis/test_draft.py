from geosam_qgis.draft import Draft


def test_prompts_are_asked_for_together_and_taken_back_one_by_one():
    draft = Draft("EPSG:32617")
    assert draft.request() is None and draft.take_back() is None
    draft.add_point(1, 2, 1)
    assert draft.is_lone_click
    draft.add_point(3, 4, 0)
    draft.add_box(9, 8, 5, 6)
    assert draft.request("a") == {
        "id": "a", "points": [[1, 2], [3, 4]], "labels": [1, 0], "box": [5, 6, 9, 8],
    }  # fmt: skip
    assert draft.take_back() == ("box", 5, 6, 9, 8)
    assert draft.take_back() == ("point", 3, 4, 0)
    assert draft.request() == {"id": "draft", "points": [[1, 2]], "labels": [1]}


def test_a_new_box_stands_for_the_old_one_until_it_is_taken_back():
    draft = Draft()
    draft.add_box(0, 0, 1, 1)
    draft.add_box(2, 2, 3, 3)
    assert draft.request()["box"] == [2, 2, 3, 3]
    draft.take_back()
    assert draft.request()["box"] == [0, 0, 1, 1]


def test_a_click_beside_the_object_alone_asks_for_nothing():
    draft = Draft()
    draft.add_point(0, 0, 0)
    assert not draft.says_where and draft.request() is None


def test_what_would_be_leaves_the_draft_alone():
    draft = Draft()
    draft.add_point(0, 0, 1)
    assert len(draft.with_point(1, 1, 0)) == 2 and len(draft) == 1
