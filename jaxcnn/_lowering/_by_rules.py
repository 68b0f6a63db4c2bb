"""Primitives that run the rule for their problem, for one model or for several."""

import functools
from collections.abc import Callable

import jax
from jax import lax

from jaxcnn._jax import Primitive
from jaxcnn._lowering._primitive import primitive
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._rules import Rule, choose, selected


def by_rules(name: str, describe: Callable[..., Problem], *, examples: tuple[bool, ...]) -> Primitive:
    """A primitive that runs the rule for the problem `describe(*operands of one model, **params)`."""

    def problem_of(*operands, models=False, **params):
        problem = describe(*(jax.ShapeDtypeStruct(x.shape[models:], x.dtype) for x in operands), **params)
        return problem._replace(models=operands[0].shape[0]) if models else problem

    def runner(rule_for: Callable[[Problem], Rule]) -> Callable[..., jax.Array]:
        def run(*arrays, **params):
            problem = problem_of(*arrays, **params)
            with jax.default_matmul_precision(problem.precision):
                return rule_for(problem).run(*arrays, problem)

        return run

    def run_models(*arrays, **params):
        problem = problem_of(*arrays, models=True, **params)
        rule = selected(problem)
        one = lambda arrays: rule.run(*arrays, problem)
        with jax.default_matmul_precision(problem.precision):
            if problem.models == 1:  # the rule may call a library, which `vmap` cannot map
                return one([x[0] for x in arrays])[None]
            return jax.vmap(one)(arrays) if rule.vmapped(problem) else lax.map(one, arrays)

    def spec(*operands, models=False, **params):
        problem = problem_of(*operands, models=models, **params)
        shape = (problem.models, *problem.result_shape) if models else problem.result_shape
        return jax.ShapeDtypeStruct(shape, problem.dtype)

    plain = runner(functools.partial(choose, backend="other"))
    prim = primitive(name, plain, cpu=runner(selected), cpu_models=run_models, spec=spec, examples=examples)
    vars(prim)["problem"] = problem_of  # read by `explain.plan`
    return prim
