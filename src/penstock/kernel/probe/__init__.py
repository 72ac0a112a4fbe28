"""What the running kernel can do, each thing tried on it and not looked up by its version.

    found = survey.survey_kernel()
    found.behaviours["tcx"]             ->  Found(True)
    found.helpers["xdp"]                ->  {"loop": True, "bind": False, …}

`survey` asks for everything; `tables` and `behaviours` say what there is to ask and which kernel first had it;
`kinds`, `tries` and `isolated` ask.  No answer is given where the kernel refuses to say: `has` is None
then, and `why` has the reason.
"""
