"""fvcore without the deprecation warning that importing it raises."""

import warnings

with warnings.catch_warnings():
    # fvcore 0.1.5 calls torch.jit.script on import, deprecated since torch 2.12
    warnings.filterwarnings("ignore", "`torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", "`torch.jit", category=DeprecationWarning)
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from fvcore.nn.precise_bn import update_bn_stats

__all__ = ["ActivationCountAnalysis", "FlopCountAnalysis", "update_bn_stats"]
