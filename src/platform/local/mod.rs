//! The laptop: directories.
