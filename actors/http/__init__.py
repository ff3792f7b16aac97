"""HTTP/1.1: the values both ends exchange, the server's protocol class and the client's connections."""
