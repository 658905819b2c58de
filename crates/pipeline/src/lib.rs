//! From a request to a picture: recipes, stages, schedulers, seeds, saving.
