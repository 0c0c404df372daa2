"""Which way of fine-tuning suits a small model? Methods, tasks, models and seeds side by side, with their cost."""
