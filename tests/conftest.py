from hypothesis import settings

settings.register_profile("geosam", deadline=None)  # laws, not stopwatches
settings.load_profile("geosam")
