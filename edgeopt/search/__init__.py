"""A model, data and a space of recipes go in; the recipes that no other is shown to beat, and their files, come out.

`space` says what may be drawn, `trying` measures one recipe, `study` draws with Optuna and remembers, `hands` and
`on_ray` are the processes that work, `tuning` is the whole job.
"""
