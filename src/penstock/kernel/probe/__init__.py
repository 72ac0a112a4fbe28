"""What the running kernel can do, each thing tried on it and not looked up by its version.

    survey = survey_kernel()
    survey.behaviours["tcx"]             ->  Found(True)
    survey.helpers["xdp"]                ->  {"loop": True, "bind": False, …}

`tables` and `behaviours` say what there is to ask and which kernel first had it; `kinds`, `tries` and `isolated`
ask.  No answer is given where the kernel refuses to say: `has` is None then, and `why` has the reason.
"""

from penstock.kernel.probe.survey import Survey, survey_kernel

__all__ = ["Survey", "survey_kernel"]
