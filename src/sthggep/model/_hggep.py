"""A trained model: its networks, its genes, what it looks at."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import pandas as pd
import torch
from torch import nn

from sthggep import nn as nets
from sthggep._checks import genes_present, listing
from sthggep._encoders._weights import bundled_path
from sthggep._inputs._inputs import Inputs
from sthggep.model._card import card, html
from sthggep.model._hub import download, names_repository, upload
from sthggep.model._lazyslide import LazySlideModel
from sthggep.model._predictor import Predictor
from sthggep.model._record import TrainingRecord
from sthggep.model._store import plain, read_checkpoint, read_folder, under, write_folder

__all__ = ["HGGEP"]

BUNDLED_MODELS = ("her2st",)
NETWORKS: dict[str, type[nn.Module]] = {"HGGEPNet": nets.HGGEPNet, "FeatureHGGEPNet": nets.FeatureHGGEPNet}


class HGGEP(Predictor):
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
        Training curves, a row for each network and epoch; epochs count from 0, as Lightning's do.

    Examples
    --------
    >>> model = sthggep.tl.fit(slides)
    >>> model.save("model")
    >>> sthggep.tl.predict(new_slide, sthggep.HGGEP.load("model"))
    """

    def _repr_html_(self) -> str:
        return html(self)

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
        from sthggep._version import __version__

        config = {
            "version": __version__,
            "class": "HGGEP",
            "id": self.id,
            "preset": self.preset,
            "genes": self.genes,
            "units": self.units,
            "inputs": self.inputs.to_dict(),
            "networks": [{"class": type(m).__name__, "config": m.config} for m in self.members],
            "training": self.training.to_dict(),
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
                training=TrainingRecord.from_dict(config["training"]),
                history=pd.DataFrame(config["history"]),
            )
            model.members.load_state_dict(under("members.", tensors))
            if config["id"] is not None:
                model._check_id(config["id"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as reason:
            why = shorten(str(reason), 200, placeholder=" …")  # torch names every weight that does not fit
            msg = f"{str(folder)!r}: the record and the weights do not belong together ({why}). Save the model again."
            raise ValueError(msg) from reason
        if genes is not None:
            genes_present(genes, model.genes, f"the model {str(folder)!r}")
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool = False,
        commit_message: str = "Upload a model of sthggep",
    ) -> str:
        """Put the model on the Hugging Face hub, with a model card made from the record of its training.

        One commit holds ``config.json`` and ``model.safetensors``, as :meth:`save` writes them, and ``README.md``. The
        names of the training sections are in ``config.json``: think of them before you share a model of patients.

        Parameters
        ----------
        repo_id
            ``"owner/name"``. A repository that is not there is made.
        token
            Token that may write there; ``None`` takes the one that ``hf auth login`` kept, or ``$HF_TOKEN``.
        private
            Whether a repository that is made is private. One that is there stays as it is.
        commit_message
            What the commit is called.

        Returns
        -------
        The address of the commit.

        Raises
        ------
        ImportError
            `huggingface_hub` is not installed (extra ``hub``).
        ValueError
            ``repo_id`` is no such name.
        PermissionError, ConnectionError
            You may not write there; the hub cannot be reached.
        """
        if not names_repository(repo_id):
            msg = f"`repo_id` must be 'owner/name', found {repo_id!r}."
            raise ValueError(msg)
        with tempfile.TemporaryDirectory(prefix="sthggep-") as scratch:
            folder = Path(scratch) / "model"
            self.save(folder)
            (folder / "README.md").write_text(card(self, repo_id), encoding="utf-8")
            return upload(folder, repo_id, token=token, private=private, commit_message=commit_message)

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, token: str | None = None) -> HGGEP:
        """Load a model by its name.

        Parameters
        ----------
        name
            ``"her2st"``, which comes with the package (breast tumors; see its model card in the documentation), a folder
            that :meth:`save` wrote, or ``"owner/name"`` of the Hugging Face hub, where :meth:`push_to_hub` put it. A
            folder of that name is taken first.
        revision
            Branch, tag or commit on the hub: pass a commit for results that others can repeat. ``None`` takes the newest.
        token
            Token for the hub; ``None`` takes the one that ``hf auth login`` kept, or ``$HF_TOKEN``.

        Returns
        -------
        The model, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such model.
        ValueError
            A file of it is broken, or of a newer format; or ``revision`` goes with a model that is not of the hub.
        ImportError
            `huggingface_hub` is not installed (extra ``hub``).
        ConnectionError
            The hub cannot be reached, and the model was not loaded before.
        """
        local = Path(name).is_dir() or name in BUNDLED_MODELS
        if local and revision is not None:
            msg = f"`revision` is for models of the hub, but {name!r} is {'a folder' if Path(name).is_dir() else 'of this package'}."
            raise ValueError(msg)
        if local:
            return cls.load(name if Path(name).is_dir() else bundled_path(name))
        if names_repository(name):
            return cls.load(download(name, revision=revision, token=token))
        msg = (
            f"No model is called {name!r}: {listing(BUNDLED_MODELS)} comes with this version. Pass a folder, 'owner/name' of "
            "the Hugging Face hub, or train by `sthggep.tl.fit`."
        )
        raise FileNotFoundError(msg)

    def as_lazyslide_model(self, *, mpp: float | None = None) -> LazySlideModel:
        """The model as LazySlide's feature prediction takes it: ``lazyslide.tl.feature_prediction(wsi, model, feature_key="uni")``.

        It must have been trained on features that LazySlide computes, too: ``tl.fit(slides, obsm="uni")``, of tiles as large
        as the slide's. Of several keys, the features stand side by side, in that order.

        Parameters
        ----------
        mpp
            Microns per full-resolution pixel of the slide. With it, tiles that are denser than the training spots are tied
            to neighbors at the distance that was learned; ``None`` ties each to the nearest.

        Returns
        -------
        What LazySlide calls. The slide's tiles are seen all at once, since each is tied to its neighbors.

        Raises
        ------
        ValueError
            The model looks at images itself: :func:`sthggep.tl.predict` takes those.
        """
        if self.inputs.kind != "obsm":
            msg = (
                f"The model looks at {self.inputs}, but LazySlide brings features of one encoder, a row a tile. Train on such "
                "features (`sthggep.tl.fit(slides, obsm=...)`), or predict by `sthggep.tl.predict`."
            )
            raise ValueError(msg)
        return LazySlideModel(self, mpp)

    @classmethod
    def from_reference_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any], genes: Sequence[str]) -> HGGEP:
        """Take over weights that the authors' code trained; predictions are as theirs.

        Their behavior is kept: patches of 112 full-resolution pixels, transposed; absolute array positions from
        ``obs[["array_x", "array_y"]]`` (Visium: ``array_col``, ``array_row``), 0 to 63; hyperedges of the most dissimilar
        neighbors, weighted by pair. Dropout is off, and a spot without neighbors keeps its own features.

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
