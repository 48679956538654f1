"""Names and layouts as such, of no framework: rules, wrappers around names, and how two layouts of a tensor differ."""
