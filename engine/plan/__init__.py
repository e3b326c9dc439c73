"""The planner: a model and concrete shapes become prepared steps in planned memory."""
