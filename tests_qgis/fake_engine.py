"""Speaks the engine's protocol without geosam: `python fake_engine.py serve --stdio`."""

import json
import os
import sys
import time


def answer(number, **rest):
    sys.stdout.write(json.dumps({"id": number, **rest}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    request = json.loads(line)
    number, op = request["id"], request["op"]
    if op == "hello":
        print("a line of the log", file=sys.stderr, flush=True)
        answer(number, ok={"protocol": 1, "version": "fake", "pid": os.getpid()})
    elif op == "echo":
        answer(number, ok=request)
    elif op == "steps":
        for done in range(3):
            answer(number, event="progress", done=done + 1, total=3, eta_s=0.5)
        answer(number, ok={})
    elif op == "refuse":
        answer(number, error={"type": "PromptError", "message": "Prompt: no."})
    elif op == "nonsense":
        sys.stdout.write("no json\n")
        answer(number, ok={})
    elif op == "crash":
        os.abort()
    elif op == "hang":
        time.sleep(60)
    elif op == "environment":
        answer(number, ok={name: os.environ.get(name) for name in request["names"]})
