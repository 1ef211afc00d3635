"""From images to weights to features. It knows no detector."""
