"""How the bytes of a span reach the other side: one module a carrier."""
