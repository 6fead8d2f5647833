"""What is measured: errors of predictions, diagnostics of gradients, costs, scores and their statistics."""
