"""--shard: a decoder's layers divided among the ranks by PyTorch's FSDP2 (arXiv:2304.11277; ZeRO, arXiv:1910.02054).

    at rest   each rank holds some rows of each weight of a layer, of its gradient and of its optimiser moments
    forward   all-gather the layer's weights ─ compute ─ free them
    backward  all-gather again ─ compute ─ free, reduce-scatter the gradients: each rank gets the sum for its rows

Embedding, final norm and head are replicated: the loss reads the head's weight outside any module's forward. The
optimiser gets this rank's rows as plain tensors, so nothing else needs to know about the others.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# DTensors and FSDP modules are recognised by their attributes: isinstance would import their modules in every run.
import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from common.console import UserError
from model.decoder import Decoder


@contextmanager
def sharded(decoder: Decoder) -> Iterator[None]:
    """Inside the block the layers are sharded; afterwards every rank has the whole trained network again.

    All ranks must make the same number of forward and backward passes. Pass an optimiser created inside through
    `own_parts`. Raises UserError when PyTorch is too old.

    A twin of the network is sharded, and takes over its memory. Afterwards the network's parameters are the same
    objects as before, whole, and evaluation and saving see neither hooks nor DTensors.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(f"--shard needs PyTorch 2.9 or newer; this is {torch.__version__}")

    # a twin that shares every tensor with the network
    mesh = init_device_mesh(decoder.device.type, (torch.distributed.get_world_size(),))
    backbone = decoder.model
    twin = copy.deepcopy(backbone, {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())})

    # layer by layer: once the twin's is divided, the whole weights of the network's are freed
    for layer, part in zip(backbone.layers, twin.layers, strict=True):
        fully_shard(part, mesh=mesh)
        part.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by the tokens of all ranks
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction
        for parameter in layer.parameters():
            parameter.data = parameter.new_empty(0)

    # everything else stays whole on every rank
    rest = {parameter for parameter in twin.parameters() if not _is_divided(parameter)}
    decoder.model = fully_shard(twin, mesh=mesh, ignored_params=rest)  # the root: overlaps transfer with computation
    register_fsdp_forward_method(twin, "hidden_states")
    yield

    # gathered again, layer by layer, into the network's own parameters
    decoder.model = backbone
    for layer, part in zip(backbone.layers, twin.layers, strict=True):
        for parameter, divided in zip(layer.parameters(), part.parameters(), strict=True):
            parameter.data = divided.detach().full_tensor()
            divided.to_local().untyped_storage().resize_(0)  # else both copies would exist until the last layer


def own_parts(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Replace the optimiser's parameters by this rank's: its rows of sharded ones, replicated ones whole. Returns them.

    The optimiser must be elementwise: shard boundaries are arbitrary.
    """
    for group in optimizer.param_groups:
        group["params"] = [own_part(parameter) for parameter in group["params"]]
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def own_part(parameter: nn.Parameter) -> nn.Parameter:
    """This rank's rows of a sharded parameter, sharing its memory; any other parameter itself."""
    if not _is_divided(parameter):
        return parameter
    part = nn.Parameter(parameter.detach().to_local(), requires_grad=parameter.requires_grad)
    part.divided = parameter
    return part


def is_part(parameter: nn.Parameter) -> bool:
    """Whether this is `own_part` of a sharded parameter."""
    return hasattr(parameter, "divided")


def take_gradient(part: nn.Parameter) -> None:
    """Move the sharded parameter's gradient, already summed over the ranks by the backward pass, to its part."""
    gradient, part.divided.grad = part.divided.grad, None
    part.grad = None if gradient is None else gradient.to_local()


def whole(tensor: torch.Tensor, part: nn.Parameter) -> torch.Tensor:
    """Gather a parameter, or a moment, of which `tensor` is this rank's rows. All ranks call it together.

    part     the optimiser's parameter; unless it is sharded and has tensor's shape, `tensor` is returned unchanged
    Returns  the whole on rank 0's CPU, an empty tensor on the other ranks
    """
    if not is_part(part) or tensor.shape != part.shape:
        return tensor
    from torch.distributed.tensor import DTensor

    # all ranks gather, rank 0 keeps
    like = part.divided
    spread = DTensor.from_local(tensor, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    full = spread.full_tensor()
    return full.cpu() if torch.distributed.get_rank() == 0 else full.new_empty(0)


def own_rows(tensor: torch.Tensor, part: nn.Parameter) -> torch.Tensor:
    """The inverse of `whole`, without communication."""
    if not is_part(part) or tensor.shape != part.divided.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like = part.divided
    return distribute_tensor(tensor.to(part.device), like.device_mesh, like.placements, src_data_rank=None).to_local()


def is_sharded(network: nn.Module) -> bool:
    """Whether the network is inside `sharded`."""
    return any(map(_is_divided, network.parameters()))


def _is_divided(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "device_mesh")  # a DTensor; isinstance would import its module in every run
