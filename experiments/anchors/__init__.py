"""Published scores of public benchmarks beside ours, and what makes the difference."""
