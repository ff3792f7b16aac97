"""A whole cluster inside a test: `with steersman.testing.cluster() as c: ...`."""
