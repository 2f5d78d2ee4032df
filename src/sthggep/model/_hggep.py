"""The trained model: save, load, share."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sthggep import nn as nets
from sthggep._arguments import checked_methods
from sthggep._checks import gene_list, genes_present
from sthggep._disk._tensors import refuse_non_finite
from sthggep._inputs._inputs import Inputs
from sthggep.model._calibration import Calibration
from sthggep.model._card import render_card, render_html
from sthggep.model._checked import CALIBRATION, ENCODER, MEMBERS, check_before_saving, check_id, read_model, unfit
from sthggep.model._folders import find_model_folder
from sthggep.model._history import history_from_json
from sthggep.model._hub import is_repository_name, upload
from sthggep.model._lazyslide import LazySlideModel
from sthggep.model._networks import build_network, check_genes
from sthggep.model._predictor import Predictor
from sthggep.model._record import TrainingRecord
from sthggep.model._store import WHOLE_ID, check_free, model_path, read_checkpoint, select_prefix, write_folder

__all__ = ["HGGEP"]


@checked_methods
class HGGEP(Predictor):
    """A trained HGGEP model, returned by :func:`sthggep.tl.fit`, ``load``, ``from_pretrained`` and ``from_reference_checkpoint``.

    Parameters
    ----------
    members
        Networks whose predictions are averaged.
    genes
        The panel, in the order of the networks' outputs.
    inputs
        Inputs of the networks: patches, encoder features or keys of ``obsm``.
    preset
        Name of the preset of the training.
    encoder_state
        Weights of the frozen encoder. Default: the model loads its encoder by name and checks the weights.
    training
        Record of the training: sections, microns per pixel, seed. Default: an empty record.
    history
        Training curves, a row for each network and epoch; epochs count from 1, as in the log. Default: an empty table.
    calibration
        Quantiles by which intervals are made. Default: the model gives no intervals.

    Examples
    --------
    >>> model = sthggep.tl.fit(slides)
    >>> model.save("model")
    >>> model = sthggep.HGGEP.load("model")
    >>> sthggep.tl.predict(new_slide, model)
    """

    def _repr_html_(self) -> str:
        return render_html(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save the model to a folder as ``config.json`` and ``model.safetensors``, both or neither.

        Parameters
        ----------
        folder
            Folder of the model; it is made.
        overwrite
            Replace a model in the folder. A folder that holds anything else is never replaced.

        Raises
        ------
        FileExistsError
            The folder exists, and ``overwrite`` is false or it is not a model.
        ValueError
            The model could not be loaded again: its weights are NaN, for instance.

        Examples
        --------
        >>> model.save("model", overwrite=True)
        """
        from sthggep._version import __version__

        config = {"version": __version__, "class": "HGGEP", "id": self.id, **self._record()}
        tensors = {f"members.{name}": value for name, value in self.members.state_dict().items()}
        tensors |= {f"encoder.{name}": value for name, value in (self.encoder_state or {}).items()}
        if self.calibration is not None:
            tensors |= {f"{CALIBRATION}{name}": value for name, value in self.calibration.to_tensors().items()}
        check_free(path := model_path(folder), overwrite=overwrite)
        check_before_saving(config, tensors)
        write_folder(path, config, tensors, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, *, genes: Sequence[str] | None = None) -> HGGEP:
        """Load a model from a folder that :meth:`save` wrote.

        Parameters
        ----------
        folder
            Folder of the model.
        genes
            Genes that the model must predict. Default: no check.

        Returns
        -------
        The model, on the CPU.

        Raises
        ------
        FileNotFoundError
            The folder or a file of it is missing.
        ValueError
            A file is broken or of a newer format, record and weights do not belong together, or weights are NaN.
        KeyError
            The model does not predict a gene of ``genes``.

        Examples
        --------
        >>> model = sthggep.HGGEP.load("model", genes=["GNAS", "FASN"])
        """
        path = model_path(folder)
        config, tensors = read_model(path)
        try:
            model = cls(
                [build_network(entry) for entry in config["networks"]],
                config["genes"],
                Inputs.from_dict(config["inputs"]),
                preset=config["preset"],
                encoder_state=select_prefix(ENCODER, tensors) or None,
                training=TrainingRecord.from_dict(config["training"]),
                history=history_from_json(config["history"]),
                calibration=Calibration.from_tensors(select_prefix(CALIBRATION, tensors)),
            )
            model.members.load_state_dict(select_prefix(MEMBERS, tensors))
            if config["format"] >= WHOLE_ID:
                check_id(config, model.id)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as reason:
            raise unfit(path, reason) from reason
        if genes is not None:
            genes_present(gene_list(genes), model.genes, f"the model {str(folder)!r}")
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool = False,
        commit_message: str = "Upload a model of sthggep",
    ) -> str:
        """Upload the model and a model card to the Hugging Face hub.

        One commit holds ``config.json`` and ``model.safetensors``, as :meth:`save` writes them, and ``README.md``.
        ``config.json`` holds the names of the training sections and, to recognize them, a small gray picture of each (10 µm
        a pixel or coarser, 128 pixels at most): check that they do not identify patients.

        Parameters
        ----------
        repo_id
            ``"owner/name"``. A missing repository is made.
        token
            Token with write access. Default: the token of ``hf auth login``, or ``$HF_TOKEN``.
        private
            Make a new repository private. An existing repository stays as it is.
        commit_message
            Message of the commit.

        Returns
        -------
        The address of the commit.

        Raises
        ------
        ImportError
            `huggingface_hub` is not installed (extra ``hub``).
        ValueError
            ``repo_id`` is not of the form ``"owner/name"``.
        PermissionError, ConnectionError
            You have no write access; the hub cannot be reached.

        Examples
        --------
        >>> model.push_to_hub("owner/name", private=True)
        """
        if not is_repository_name(repo_id):
            msg = f"`repo_id` must be 'owner/name', found {repo_id!r}."
            raise ValueError(msg)
        with tempfile.TemporaryDirectory(prefix="sthggep-") as scratch:
            folder = Path(scratch) / "model"
            self.save(folder)
            (folder / "README.md").write_text(render_card(self, repo_id), encoding="utf-8")
            return upload(folder, repo_id, token=token, private=private, commit_message=commit_message)

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, token: str | None = None) -> HGGEP:
        """Load a bundled model, a folder, or a model of the Hugging Face hub.

        Parameters
        ----------
        name
            ``"her2st"``, the bundled model of breast tumors, a folder that :meth:`save` wrote, or ``"owner/name"`` of a
            repository that :meth:`push_to_hub` wrote. A folder of that name comes first.
        revision
            Branch, tag or commit on the hub; pass a commit for reproducible results. Default: the newest commit.
        token
            Token for the hub. Default: the token of ``hf auth login``, or ``$HF_TOKEN``.

        Returns
        -------
        The model, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such model.
        ValueError
            A file is broken or of a newer format, or ``revision`` is passed for a model that is not on the hub.
        ImportError
            `huggingface_hub` is not installed (extra ``hub``).
        ConnectionError
            The hub cannot be reached, and the model is not in the cache.

        Examples
        --------
        >>> model = sthggep.HGGEP.from_pretrained("her2st")
        """
        return cls.load(find_model_folder(name, revision=revision, token=token))

    def as_lazyslide_model(self, *, mpp: float | None = None) -> LazySlideModel:
        """Wrap the model for LazySlide's feature prediction.

        The model must be trained on features that LazySlide computes, of tiles as large as the slide's:
        ``tl.fit(slides, obsm="uni")``. LazySlide passes all tiles at once, features of several keys side by side.

        Parameters
        ----------
        mpp
            Microns per full-resolution pixel. With it, neighbors of tiles that are denser than the training spots are
            about as far apart as in training. Default: the nearest tiles are neighbors.

        Returns
        -------
        A model for ``lazyslide.tl.feature_prediction``.

        Raises
        ------
        ValueError
            The model reads images; predict by :func:`sthggep.tl.predict`.

        Examples
        --------
        >>> lazyslide.tl.feature_prediction(wsi, model.as_lazyslide_model(), feature_key="uni")
        """
        if self.inputs.kind != "obsm":
            msg = (
                f"The model reads {self.inputs}, but LazySlide passes features of tiles. Train on such features "
                "(`sthggep.tl.fit(slides, obsm=...)`), or predict by `sthggep.tl.predict`."
            )
            raise ValueError(msg)
        return LazySlideModel(self, mpp)

    @classmethod
    def from_reference_checkpoint(cls, checkpoint: str | Path | Mapping[str, object], genes: Sequence[str]) -> HGGEP:
        """Make a model from weights of the authors' code, with the same predictions.

        The model keeps their conventions: patches of 112 full-resolution pixels, transposed; absolute array positions from
        ``obs[["array_x", "array_y"]]`` (Visium: ``array_col``, ``array_row``), 0 to 63; hyperedges of the most dissimilar
        neighbors, weighted by pair. Dropout is off, and a spot without neighbors keeps its own features.

        Parameters
        ----------
        checkpoint
            State dict or Lightning checkpoint, or its file, which is read without running code in it.
        genes
            The panel of the training, in order.

        Returns
        -------
        The model, ready for :func:`sthggep.tl.predict`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is not such a checkpoint, or has another number of genes.

        Examples
        --------
        >>> model = sthggep.HGGEP.from_reference_checkpoint("model.ckpt", genes)
        """
        names = gene_list(genes)
        state = checkpoint if isinstance(checkpoint, Mapping) else read_checkpoint(model_path(checkpoint))
        check_genes(nets.reference_sizes(state)[0], len(names))  # before memory is taken for a network of that many
        net = nets.from_reference_state_dict(state)
        refuse_non_finite(net.state_dict())
        return cls([net], names, Inputs("patches", reference=True), preset="reference")
