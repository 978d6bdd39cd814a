"""The worker: everything that touches pixels or the model. It imports maskscore, never the other way round."""
