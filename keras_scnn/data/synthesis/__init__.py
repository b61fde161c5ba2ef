"""Rendered people, and real faces turned to other poses."""
