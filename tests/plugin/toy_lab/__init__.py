"""A laboratory's own additions to jetscale, one file an addition; none of jetscale's files is edited."""
