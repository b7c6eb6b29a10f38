"""Small tools without business."""
