//! What happened lately, for the admin port: a bounded ring and a live feed.
