"""Engines: units through the stages of a plan, in this process or on Ray. They know no stage by name."""
