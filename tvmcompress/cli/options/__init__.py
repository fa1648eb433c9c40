"""The options of the commands, in groups: each group is one value, and stands in one place."""
