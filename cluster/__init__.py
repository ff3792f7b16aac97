"""The deciding half of the house: pure functions of values, with no I/O, clock or chance of their own."""
