"""How tests have XLA compile programs that run for a few steps."""

FAST = "--xla_backend_optimization_level=1"  # 0 compiles faster, and runs far slower
