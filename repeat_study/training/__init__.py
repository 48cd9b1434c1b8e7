"""From a declared run to a trained one: model, loss, data module, Lightning module, callback, checkpoints, bundles."""
