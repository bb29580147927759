"""Whole trainers, judged by the weights that they leave behind: what holds a stack together, as a black box."""
