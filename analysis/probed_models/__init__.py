"""Tables and figures of models that were trained elsewhere and probed here."""
