"""A preset behind HTTP."""
