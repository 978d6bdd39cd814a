"""The demo: drawn scenes, the small model that knows them, and a run of the whole service over them."""
