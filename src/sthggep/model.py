"""A trained model: its networks, its genes, what it looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from sthggep import nn as nets
from sthggep._checks import counted, genes_present, listing, unique
from sthggep._data import Inputs
from sthggep._describe import Predicted, describe_windows
from sthggep._device import resolve_device
from sthggep._keys import UNITS
from sthggep._store import plain, read_checkpoint, read_folder, under, write_folder
from sthggep._windowed import check_window
from sthggep.pp._encoders import FrozenEncoder
from sthggep.pp._weights import bundled, weights_id

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._slide import Slide

__all__ = ["HGGEP"]

BUNDLED_MODELS = ("her2st",)
NETWORKS: dict[str, type[nn.Module]] = {"HGGEPNet": nets.HGGEPNet, "FeatureHGGEPNet": nets.FeatureHGGEPNet}


class HGGEP:
    """A trained HGGEP, made by :func:`sthggep.tl.fit`, by ``load`` or by ``from_reference_checkpoint``.

    Parameters
    ----------
    members
        Networks whose predictions are averaged.
    genes
        The panel, in the order of the networks' outputs.
    inputs
        What the networks look at.
    preset
        Name of the preset it was made by.
    encoder_state
        Weights of the frozen encoder, where there is one and it may travel with the model: a saved model needs no
        download. Encoders of other packages are found again by their name, and their weights are checked.
    training
        Record of the training: slides, microns per pixel, seed, versions.
    history
        Training curves, a row for each network and epoch.

    Examples
    --------
    >>> model = sthggep.tl.fit(slides)
    >>> model.save("model")
    >>> sthggep.tl.predict(new_slide, sthggep.HGGEP.load("model"))
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        genes: Sequence[str],
        inputs: Inputs,
        *,
        preset: str = "custom",
        encoder_state: Mapping[str, Tensor] | None = None,
        training: Mapping[str, Any] | None = None,
        history: pd.DataFrame | None = None,
    ) -> None:
        self.genes = [str(gene) for gene in genes]
        unique(self.genes, "The genes of a model", "Each stands for one output.")
        self.members = nn.ModuleList(members).eval()
        self.inputs, self.preset = inputs, preset
        self.encoder_state = None if encoder_state is None else dict(encoder_state)
        self.training = dict(training or {})
        self.history = pd.DataFrame() if history is None else history
        for member in members:
            _check_genes(member, len(self.genes))

    @property
    def id(self) -> str:
        """Short name that changes with the weights and with the genes they stand for."""
        # Weights of the encoder that are not held here are known by their own short name
        encoder = weights_id(self.encoder_state or {}) if self.encoder_state else self._encoder_weights
        content = [weights_id(self.members.state_dict()), encoder or weights_id({}), *self.genes]
        return f"hggep-{self.preset}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"

    @property
    def units(self) -> str:
        """Scale of the predictions."""
        return UNITS

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.members.parameters())
        slides = self.training.get("sections", [])
        return (
            f"HGGEP ({self.preset}): {counted(self.genes, 'gene')} from {self.inputs}; "
            f"{counted(len(self.members), 'network')}, {weights / 1e6:.1f} M weights; "
            f"trained on {counted(slides, 'section')} ({listing(slides, 6)})"
        )

    def encoder(self, *, device: str = "auto") -> FrozenEncoder | None:
        """The frozen encoder that this model looks through, with its weights.

        Parameters
        ----------
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …

        Returns
        -------
        The encoder; ``None`` where patches or ``obsm`` are looked at.

        Raises
        ------
        ValueError
            It cannot be made here, or has other weights than the model was trained on.
        """
        if self.inputs.kind != "features":
            return None
        name, wanted = self.inputs.encoder, self._encoder_weights
        if self.encoder_state is None and wanted is None:
            msg = f"The model has no weights of its encoder {name!r}: pass `encoder_state`."
            raise ValueError(msg)
        try:
            found = FrozenEncoder(name, self.encoder_state, resolve_device(device))
        except ValueError as reason:
            msg = (
                f"The model looks at features of the encoder {name!r}, which cannot be made here. {reason} "
                "An encoder of your own is registered anew in each session: `sthggep.pp.register_encoder`."
            )
            raise ValueError(msg) from reason
        if self.encoder_state is None and found.weights != wanted:
            msg = (
                f"The encoder {name!r} has other weights here ({found.weights}) than the model was trained on ({wanted}). "
                "Register the one that it was trained on."
            )
            raise ValueError(msg)
        return found

    @property
    def _encoder_weights(self) -> str | None:
        """Short name of the weights of the encoder that it was trained on; ``None`` where it has none."""
        found = self.training.get("encoder_weights") if self.inputs.kind == "features" else None
        return None if found is None else str(found)

    @property
    def pitch_um(self) -> float | None:
        """Microns between neighbouring spots of the training sections (their median); ``None`` where it is not known."""
        known = [pitch for pitch in self.training.get("pitch_um", []) if pitch]
        return float(np.median(known)) if known else None

    @property
    def has_counts(self) -> bool:
        """Whether the networks say how counts are distributed, beside the expression."""
        return all(member.config.get("count_head") is not None for member in self.members)  # type: ignore[union-attr, operator]

    def predict_slide(self, slide: Slide, **options: Any) -> NDArray[np.float32]:
        """Expression of one section.

        Parameters
        ----------
        slide
            Section to be predicted.
        options
            As for :meth:`describe_slide`.

        Returns
        -------
        float32 (n_spots, n_genes).
        """
        return self.describe_slide(slide, **options).expression

    def describe_slide(
        self,
        slide: Slide,
        *,
        genes: Sequence[str] | None = None,
        latent: bool = False,
        counts: bool = False,
        window: int | str | None = "auto",
        encoder: FrozenEncoder | None = None,
        batch_size: int = 64,
        device: str = "auto",
        show: bool = False,
    ) -> Predicted:
        """Expression of one section, with the latent features behind it and the mean counts where asked for.

        Parameters
        ----------
        slide
            Section to be predicted.
        genes
            Some of the model's genes; ``None`` takes all.
        latent
            Return the fused features of each network, side by side. Their mean would mean nothing: networks trained from
            different seeds have no axes in common. Distances between spots add up over the networks.
        counts
            Return mean counts.
        window
            Spots predicted at a time; see :func:`sthggep.tl.predict`.
        encoder
            What :meth:`encoder` gave, to make it once for many sections; ``None`` makes it.
        batch_size
            Patches encoded at a time.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        show
            Show progress.

        Returns
        -------
        Arrays, a row a spot.

        Raises
        ------
        KeyError
            A gene is not predicted by the model.
        ValueError
            Counts are asked for, and the networks do not predict them; or ``window`` is none.
        """
        columns = None if genes is None else genes_present(genes, self.genes, "the model")
        if counts and not self.has_counts:
            msg = "The networks of this model have no head for counts; they predict expression only."
            raise ValueError(msg)
        check_window(self.inputs, slide, window)
        where = resolve_device(device)
        parts = describe_windows(
            self,
            slide,
            columns=columns,
            latent=latent,
            counts=counts,
            window=window,
            encoder=encoder or self.encoder(device=str(where)),
            batch_size=batch_size,
            device=where,
            show=show,
        )
        rows, found = zip(*parts, strict=True)
        if len(found) == 1:
            whole: Predicted = found[0]
            return whole
        back = np.argsort(np.concatenate(rows))
        stacked = (None if kind[0] is None else np.concatenate(kind) for kind in zip(*found, strict=True))
        return Predicted(*stacked).of(back)  # type: ignore[arg-type]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write ``config.json`` and ``model.safetensors``, whole or not at all.

        Parameters
        ----------
        folder
            Where to; it is made.
        overwrite
            Replace a model that is there. A folder that is no model is never replaced.

        Raises
        ------
        FileExistsError
            The folder is there, and is to be kept or is no model.
        """
        from sthggep import __version__

        config = {
            "version": __version__,
            "class": "HGGEP",
            "id": self.id,
            "preset": self.preset,
            "genes": self.genes,
            "units": self.units,
            "inputs": self.inputs.to_dict(),
            "networks": [{"class": type(m).__name__, "config": m.config} for m in self.members],
            "training": self.training,
            "history": plain(self.history),
        }
        tensors = {f"members.{name}": value for name, value in self.members.state_dict().items()}
        tensors |= {f"encoder.{name}": value for name, value in (self.encoder_state or {}).items()}
        write_folder(Path(folder), config, tensors, overwrite=overwrite)

    def _check_id(self, saved: str) -> None:
        """Weights, genes and record are those that were saved together."""
        if self.id != saved:
            msg = f"they make {self.id}, but {saved} was saved; genes or weights are not those"
            raise ValueError(msg)

    @classmethod
    def load(cls, folder: str | Path, *, genes: Sequence[str] | None = None) -> HGGEP:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        folder
            Where it is.
        genes
            Genes that you need; an error names those that the model does not predict.

        Returns
        -------
        The model, on the CPU.

        Raises
        ------
        FileNotFoundError
            The folder or a file of it is missing.
        ValueError
            A file is broken, of a newer format, or its genes and weights do not belong together.
        KeyError
            A gene of ``genes`` is not predicted.
        """
        config, tensors = read_folder(Path(folder))
        try:
            members = [_build(entry) for entry in config["networks"]]
            inputs, names = Inputs.from_dict(config["inputs"]), config["genes"]
            model = cls(
                members,
                names,
                inputs,
                preset=config["preset"],
                encoder_state=under("encoder.", tensors) or None,
                training=config["training"],
                history=pd.DataFrame(config["history"]),
            )
            model.members.load_state_dict(under("members.", tensors))
            model._check_id(config["id"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as reason:
            why = shorten(str(reason), 200, placeholder=" …")  # torch names every weight that does not fit
            msg = f"{str(folder)!r}: the record and the weights do not belong together ({why}). Save the model again."
            raise ValueError(msg) from reason
        if genes is not None:
            genes_present(genes, model.genes, f"the model {str(folder)!r}")
        return model

    @classmethod
    def from_pretrained(cls, name: str) -> HGGEP:
        """Load a model by its name.

        Parameters
        ----------
        name
            ``"her2st"``, which comes with the package (breast tumours; see its model card in the documentation), or a
            folder that :meth:`save` wrote.

        Returns
        -------
        The model, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such model.
        """
        if Path(name).is_dir():
            return cls.load(name)
        if name in BUNDLED_MODELS:
            return cls.load(bundled(name))
        msg = (
            f"No model is called {name!r}: {listing(BUNDLED_MODELS)} comes with this version. Pass a folder, or train by "
            "`sthggep.tl.fit`."
        )
        raise FileNotFoundError(msg)

    @classmethod
    def from_reference_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], genes: Sequence[str]) -> HGGEP:
        """Take over weights that the authors' code trained; predictions are as theirs.

        Their behaviour is kept: patches of 112 full-resolution pixels, transposed; absolute array positions from
        ``obs[["array_x", "array_y"]]`` (Visium: ``array_col``, ``array_row``), 0 to 63; hyperedges of the most dissimilar
        neighbours, weighted by pair. Dropout is off, and a spot without neighbours keeps its own features.

        Parameters
        ----------
        checkpoint
            State dict or Lightning checkpoint: the object, or its file, read without running code in it.
        genes
            The panel it was trained on, in that order.

        Returns
        -------
        The model, ready for :func:`sthggep.tl.predict`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is not such a checkpoint, or has another number of genes.
        """
        state = checkpoint if isinstance(checkpoint, Mapping) else read_checkpoint(Path(checkpoint))
        net = nets.from_reference_state_dict(state)
        return cls([net], genes, Inputs("patches", reference=True), preset="reference")


def _build(entry: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # initial weights are thrown away: leave the user's seed alone
        return NETWORKS[entry["class"]](**entry["config"])


def _check_genes(member: nn.Module, n_genes: int) -> None:
    found = member.config["n_genes"]  # type: ignore[index]
    if found != n_genes:
        msg = f"The network predicts {counted(found, 'gene')}, found {counted(n_genes, 'name')}. Pass the panel it was trained on, in order."
        raise ValueError(msg)
