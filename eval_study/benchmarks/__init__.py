"""Every table and figure of the report, made by one command: `python -m eval_study.benchmarks --data ROOT`.

A benchmark is a module with

    NAME                     of its result file, `<NAME>.json`
    run(bench) -> dict       measures; what comes back is JSON, with every figure's interval beside it
    section(result)          the result as a section of the report

Results are kept by weights hash, so that the report is remade from them in a minute and a killed run goes on where it
was. Choices are made on train and valid; predictions on a test split are made once for each weights hash, and noted in
test_ledger.csv before the first photo is read.
"""
