//! Picks the model server for each LLM request inside Envoy.
