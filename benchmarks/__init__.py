"""Measurements that can be repeated; `python -m study bench` and `python -m analysis bench` run them."""
