"""Many trainings side by side: tasks, and pools of processes that work on them."""
