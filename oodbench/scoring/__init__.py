"""From features to numbers: spaces, detectors, metrics, intervals. It knows no image, no network, no store."""
