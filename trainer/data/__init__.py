"""Pictures and captions: records, captions, buckets, pixels, cache, batch order, prefetch, report."""
