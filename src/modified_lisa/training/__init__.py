"""Training: `run.train` from Python, `command.main` as a program; read `loop.Trainer` first."""
