"""Custom resources: what a definition may say, and what its schema and its rules say of an object.

    definition.py    the rules of CustomResourceDefinitions; `naming.py` their names, conditions and defaults
    schema_rules.py  the rules of the schemas in them
    values.py        an object against its schema; `expressions.py` against its `x-kubernetes-validations`
    conversion.py    between versions

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""
