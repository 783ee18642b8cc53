"""`PairDataset`: a pair of domains as one RecBole Dataset, split by cold-start users."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from dataset_tools.atomic import read_inter, read_items, read_link
from recbole_cdr_mm.data.features import DomainFeatures, FeatureKind, ItemFeatures, load_features
from recbole_cdr_mm.data.history import Histories, build_histories
from recbole_cdr_mm.data.links import keep_links
from recbole_cdr_mm.data.loading_cache import ItemTexts, LoadingCache
from recbole_cdr_mm.data.pair import DomainName, Pair, Ratings, join_domains, row_order
from recbole_cdr_mm.data.profiles import UserProfiles, user_profiles
from recbole_cdr_mm.data.split import ColdStartSplit, FewShot, split_cold_start
from recbole_cdr_mm.errors import ConfigError, DataFormatError

TEXT_FIELDS = ("title", "text")
_FEATURE_KEYS = ("item_features", "target_item_features", "pretrain_item_features")


class PairDataset(Dataset):
    """Both domains in RecBole's form: one `inter_feat`, one id space, three parts from `build`.

    RecBole's own models run on it unchanged. Models of this package also use what they need of
    `pair`, `split`, `histories` and `features`.

    Attributes:
        pair: Both domains in one id space; with `eval_task: ranking` only their positives.
        split: The cold-start split of the target ratings, likewise.
        description: The `data` block of a result: pair and split before the positives' filter.
        profiles: Of all users, likewise before it; only with `save_predictions`.

    Raises:
        ConfigError: If the split leaves a part empty.
        DataFormatError: If a file is missing or malformed.
    """

    pair: Pair
    split: ColdStartSplit
    description: dict[str, Any]
    profiles: UserProfiles

    def _load_data(self, token: str, dataset_path: str) -> None:
        config = self.config
        self._domains: dict[DomainName, str] = {
            "source": config["source_dataset"],
            "target": config["target_dataset"],
        }
        self._features: dict[tuple[str, ...], ItemFeatures] = {}
        self._cache = LoadingCache(config["loading_cache"])
        self._texts = {d: self._tokens_with_text(name) for d, name in self._domains.items()}
        frames = {domain: self._read_domain(name) for domain, name in self._domains.items()}
        if self.time_field != "timestamp" and not any("time" in f for f in frames.values()):
            raise ConfigError(
                f"`TIME_FIELD: {self.time_field}`: neither {' nor '.join(self._domains.values())}"
                " has such a column. Correct the name, or leave it out."
            )
        frames["source"] = self._link_users(frames["source"])
        pair = join_domains(frames["source"], frames["target"])
        split = split_cold_start(
            pair,
            test_user_ratio=config["test_user_ratio"],
            valid_user_ratio=config["valid_user_ratio"],
            split_seed=config["split_seed"],
            few_shot=None
            if config["few_shot"] is None
            else FewShot(config["few_shot"], config["few_shot_pool"]),
            unseen_item_ratio=config["unseen_item_ratio"],
        )
        if config["overlap_ratio"] < 1:
            pair, split = keep_links(pair, split, config["overlap_ratio"], config["split_seed"])
        self.description = self._describe(pair, split)
        if config["save_predictions"]:
            self.profiles = user_profiles(pair)
        self._rated_source, self._rated_train = pair.source, split.train
        if config["eval_task"] == "ranking":
            config["lower_fingerprint"] = None  # until somebody reads what is left out here
            threshold = config["positive_threshold"]
            pair, split = _positives(pair, threshold), split.at_least(threshold)
        self.pair, self.split = pair, split
        self._check_parts()
        config["data_fingerprint"] = self._fingerprint()
        self._set_fields()

    def _data_processing(self) -> None:
        """Ids, missing values and filters are dealt with before the domains are joined."""
        self.feat_name_list = ["inter_feat"]

    def build(self) -> list[PairDataset]:
        """Training, validation and test part.

        Training holds the target ratings that the split leaves and, with `train_domains: both`, all
        source ratings.
        """
        train_domains = self.config["train_domains"] or "both"
        train = [self.split.train, *([self.pair.source] if train_domains == "both" else [])]
        parts = (train, [self.split.valid], [self.split.test])
        return [self.copy(self._interaction(part)) for part in parts]

    def histories(self, *, positive_only: bool = False, last: int | None = None) -> Histories:
        """The source histories of all users.

        Args:
            positive_only: Keep only ratings of `positive_threshold` or more, also in a ranking.
            last: Keep only each user's last so many.
        """
        rows = self.source_ratings(positive_only=positive_only)
        return build_histories(rows, self.pair.n_users, last=last)

    def source_ratings(self, *, positive_only: bool) -> Ratings:
        """Source ratings, also in a ranking all of them or those of `positive_threshold` alone."""
        if not positive_only:
            return self.rated_source
        return self.pair.source.at_least(self.config["positive_threshold"])

    @property
    def rated_source(self) -> Ratings:
        """All source ratings, with `eval_task: ranking` those below the threshold too."""
        self._note_lower_ratings()
        return self._rated_source

    @property
    def rated_train(self) -> Ratings:
        """All target ratings in training, likewise."""
        self._note_lower_ratings()
        return self._rated_train

    def _note_lower_ratings(self) -> None:
        """Note what a ranking's filter leaves out: checkpoints of who reads it agree with it."""
        if self.config["eval_task"] == "ranking" and self.config["lower_fingerprint"] is None:
            self.config["lower_fingerprint"] = _hash_of(self._rated_source, self._rated_train)

    @property
    def text_domains(self) -> list[DomainName]:
        """The domains of which any item has a title or text."""
        return [domain for domain, tokens in self._texts.items() if tokens]

    def features(self, kind: FeatureKind, domains: Sequence[DomainName]) -> ItemFeatures:
        """The text or image features of domains' items.

        Args:
            kind: `text` or `image`.
            domains: `source`, `target` or both; the items of the others have none.

        Raises:
            DataFormatError: If a domain has no item texts, or a feature store is missing or does
                not fit.
        """
        for (read_kind, *read_domains), read in self._features.items():
            if read_kind == kind and set(domains) <= set(read_domains):
                return read.of([self.pair.items(domain) for domain in domains])
        wanted: dict[DomainName, DomainFeatures] = {}
        for domain in domains:
            name = self._domains[domain]
            if kind == "text":
                self.check_texts(domain)
            wanted[domain] = DomainFeatures(
                name,
                kind,
                functools.partial(self._item_texts, name),
                self._store_folder(name),
                self._feature_command(kind, name),
            )
        features = load_features(self.pair, wanted)
        self._log_missing_features(kind, features, domains)
        self._features[kind, *domains] = features
        fingerprints = (read.fingerprint for read in self._features.values())
        self.config["feature_fingerprint"] = "+".join(fingerprints)
        return features

    def check_texts(self, domain: DomainName) -> None:
        """Refuse a domain that no text features can be made of.

        Raises:
            DataFormatError: If none of its items has a title or text.
        """
        if not self._texts[domain]:
            name = self._domains[domain]
            file = self._folder(name) / f"{name}.item"
            missing = "" if file.exists() else " (there is no such file)"
            raise DataFormatError(
                f"{file} gives no item a title or text{missing}, so there are no text features. Add"
                f" texts, or run with {self._without_features()}."
            )

    # Files of a domain

    @property
    def _root(self) -> Path:
        """The folder of the domains' folders; RecBole's `data_path` is the data set's own one."""
        return Path(self.config["data_path"]).parent

    def _folder(self, name: str) -> Path:
        return self._root / name

    def _store_folder(self, name: str) -> Path:
        feature_path = self.config["feature_path"]
        return Path(feature_path) / name if feature_path else self._folder(name)

    def _feature_command(self, kind: FeatureKind, name: str) -> str:
        feature_path = self.config["feature_path"]
        options = {
            "text": f"--dataset={self.dataset_name} --encoder=minilm",
            "image": f"--dataset={name} --images=DIR",
        }
        return f"python -m dataset_tools {kind} --data_path={self._root} {options[kind]}" + (
            f" --feature_path={feature_path}" if feature_path else ""
        )

    def _without_features(self) -> str:
        """The options by which the model that is run reads no side features."""
        reading = [name for name in _FEATURE_KEYS if self.config[name] not in (None, "id")]
        return " ".join(f"--{name}=id" for name in reading)

    def _read_domain(self, name: str) -> pd.DataFrame:
        path = self._folder(name) / f"{name}.inter"
        if not path.exists():
            raise DataFormatError(self._missing(name, path))
        config = self.config
        options = {
            "user_field": self.uid_field,
            "item_field": self.iid_field,
            "rating_field": config["RATING_FIELD"],
            "time_field": self.time_field,
            "rating_range": tuple(config["rating_range"]),
            "separator": config["field_separator"],
            "encoding": config["encoding"],
        }
        frame = self._filter(self._cache.ratings(path, options, _read_in_order))
        return frame.rename(
            columns={
                self.uid_field: "user",
                self.iid_field: "item",
                config["RATING_FIELD"]: "rating",
                self.time_field: "time",
            }
        )

    def _missing(self, name: str, path: Path) -> str:
        return (
            f"The domain `{name}` of the pair `{self.dataset_name}` is missing: there is no {path}."
            f" Give the folder that holds {name}/ with --data_path=DIR, or make it with: "
            + " and then: ".join(self._making_commands(name))
        )

    def _making_commands(self, name: str) -> list[str]:
        """The commands that make a missing domain and the pair's text features."""
        from dataset_tools.convert.amazon_tasks import TASKS  # not at each start: only for this

        if self.dataset_name == "demo":
            make = "synthetic --dataset=demo"
        elif self.dataset_name in TASKS:
            make = f"amazon-tasks --tasks={self.dataset_name} --raw=DIR"
        else:
            make = f"amazon --reviews=FILE --meta=FILE --dataset={name}"
        making = f"python -m dataset_tools {make} --data_path={self._root}"
        return [making, self._feature_command("text", name)]

    def _filter(self, frame: pd.DataFrame) -> pd.DataFrame:
        """RecBole's own filters (duplicates, values, k-core), on one domain alone."""
        self.inter_feat, self.user_feat, self.item_feat = frame, None, None
        self.feat_name_list = ["inter_feat"]
        for field in frame:
            is_token = field in (self.uid_field, self.iid_field)
            ftype = FeatureType.TOKEN if is_token else FeatureType.FLOAT
            self.set_field_property(field, ftype, FeatureSource.INTERACTION, 1)
        try:
            self._data_filtering()
        except ValueError as error:
            raise ConfigError(
                "RecBole's filters (val_interval, user_inter_num_interval, ...) cannot be used on a"
                f" domain, or leave nothing of it: {error} Correct them."
            ) from error
        return self.inter_feat

    def _link_users(self, source: pd.DataFrame) -> pd.DataFrame:
        """Rename source users by the `user_link` file; who is not in it keeps their token.

        Raises:
            DataFormatError: If two source users would become one.
        """
        path = self.config["user_link"]
        if path is None:
            return source
        link = read_link(Path(path), ("source_user_id", "target_user_id"))
        target_of = dict(link.itertuples(index=False))
        users = list(source["user"].cat.remove_unused_categories().cat.categories)
        unnamed = [user for user in users if user not in target_of]
        taken = set(unnamed) & {target_of[user] for user in users if user in target_of}
        if taken:
            raise DataFormatError(
                f"{path}: the target user `{min(taken)}` is linked to a source user, but another"
                " source user has this very token and is not in the file. Link that one too, or"
                " rename it."
            )
        renamed = source["user"].cat.rename_categories(lambda user: target_of.get(user, user))
        return source.assign(user=renamed.cat.reorder_categories(sorted(renamed.cat.categories)))

    # What RecBole's models see

    def _set_fields(self) -> None:
        config = self.config
        for field, tokens in (
            (self.uid_field, self.pair.user_tokens),
            (self.iid_field, self.pair.item_tokens),
        ):
            self.field2id_token[field] = tokens
        sources = {self.uid_field: FeatureSource.USER_ID, self.iid_field: FeatureSource.ITEM_ID}
        self.field2type.clear()
        for field, source in sources.items():
            self.set_field_property(field, FeatureType.TOKEN, source, 1)
        floats = [config["RATING_FIELD"]]
        floats += [self.label_field] if config["eval_task"] == "rating" else []
        floats += [self.time_field] if self.pair.has_timestamps else []
        for field in floats:
            self.set_field_property(field, FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
            self.field2bucketnum[field] = 2
        # A token of two users, whose link is cut, names the target's.
        self.field2token_id[self.uid_field] = {t: i for i, t in enumerate(self.pair.user_tokens)}
        # A token of both domains names the target's item here, for that is what is recommended.
        self.field2token_id[self.iid_field] = {t: i for i, t in enumerate(self.pair.item_tokens)}
        self.user_feat = self.item_feat = None
        self.inter_feat = self._interaction([self.pair.source, self.pair.target])

    def _interaction(self, parts: list[Ratings]) -> Interaction:
        """Rows in RecBole's form; the label is the rating, scaled to [0, 1] as its losses need."""
        rating = np.concatenate([part.rating for part in parts])
        columns = {
            self.uid_field: np.concatenate([part.user for part in parts]),
            self.iid_field: np.concatenate([part.item for part in parts]),
            self.config["RATING_FIELD"]: rating,
        }
        if self.config["eval_task"] == "rating":
            low, high = self.config["rating_range"]
            columns[self.label_field] = (rating - low) / np.float32(high - low)
        if self.pair.has_timestamps:
            time = np.concatenate([part.time for part in parts])
            columns[self.time_field] = time.astype(np.float32)
        return Interaction({name: torch.from_numpy(array) for name, array in columns.items()})

    # Reports

    def _fingerprint(self) -> str:
        """A hash of the rows in use and their split: what a checkpoint must agree with."""
        split = self.split
        return _hash_of(self.pair.source, split.train, split.valid, split.test, split.revealed)

    def _describe(self, pair: Pair, split: ColdStartSplit) -> dict[str, Any]:
        return {
            **pair.statistics(),
            "overlapped_users": pair.n_overlapped,
            "test_users": len(split.test_users),
            "test_ratings": len(split.test),
            "valid_users": len(split.valid_users),
            "valid_ratings": len(split.valid),
            "revealed_ratings": len(split.revealed),
            "test_users_left_out": len(np.setdiff1d(split.test_users, split.test.user)),
            "unseen_items": len(split.unseen_items),
            "unseen_test_items": split.unseen_test_items,
            "items_with_text": {
                domain: len(texts & set(pair.item_tokens[pair.items(domain)]))
                for domain, texts in self._texts.items()
            },
        }

    def _tokens_with_text(self, name: str) -> frozenset[str]:
        """Items of a domain with a title or text; none without an `.item` file."""
        if not (self._folder(name) / f"{name}.item").exists():
            return frozenset()
        return self._item_texts(name, TEXT_FIELDS).items

    def _item_texts(self, name: str, fields: Sequence[str]) -> ItemTexts:
        path = self._folder(name) / f"{name}.item"
        options = {
            "item_field": self.iid_field,
            "separator": self.config["field_separator"],
            "encoding": self.config["encoding"],
        }
        return self._cache.texts(path, fields, options, read_items)

    def _check_parts(self) -> None:
        parts = {
            "The source domain": self.pair.source,
            "The training part": self.split.train,
            "The test part": self.split.test,
        }
        if len(self.split.valid_users):
            parts["The validation part"] = self.split.valid
        for name, rows in parts.items():
            if not len(rows):  # every user has ratings, so it is the positives' filter
                raise DataFormatError(
                    f"{name} has no rating of positive_threshold"
                    f" {self.config['positive_threshold']} or more. Lower it, take other ratios, or"
                    " a pair with more ratings."
                )

    def _log_missing_features(
        self, kind: FeatureKind, features: ItemFeatures, domains: Sequence[DomainName]
    ) -> None:
        for domain in domains:
            name = self._domains[domain]
            known = features.known[self.pair.items(domain)]
            if not known.all():
                self.logger.info(
                    f"{name}: {np.sum(~known)} of {len(known)} items have no {kind}; they share one"
                    f" learned 'no {kind}' vector."
                )

    def __str__(self) -> str:
        data = self.description
        lines = [
            f"Pair {self.dataset_name}: {self._domains['source']} -> {self._domains['target']}",
            *(
                f"  {domain}: {data[domain]['users']:,} users, {data[domain]['items']:,} items"
                f" ({data['items_with_text'][domain]:,} with text),"
                f" {data[domain]['ratings']:,} ratings"
                for domain in self._domains
            ),
            f"  overlapped users: {data['overlapped_users']:,}; test users: {data['test_users']:,}"
            f" ({data['test_ratings']:,} ratings, {data['unseen_test_items']:,} items unseen in"
            f" training); validation users: {data['valid_users']:,}"
            f" ({data['valid_ratings']:,} ratings)",
        ]
        if self.config["overlap_ratio"] < 1:
            lines.append(
                f"  overlap_ratio {self.config['overlap_ratio']}: the links of all other overlapped"
                " training users are cut; each is a user of either domain"
            )
        if data["unseen_items"]:
            lines.append(
                f"  unseen items: {data['unseen_items']:,}, without a rating in training; they"
                f" alone are measured. {data['test_users_left_out']:,} test users have rated none"
                " of them and are left out"
            )
        if self.config["few_shot"] is not None:
            lines.append(
                f"  few-shot: {data['revealed_ratings']:,} ratings revealed"
                f" ({self.config['few_shot']} of each user); {data['test_users_left_out']:,} test"
                f" users have no more than few_shot_pool {self.config['few_shot_pool']} ratings and"
                " are left out"
            )
        if self.config["eval_task"] == "ranking":
            lines.append(f"  positives: {self.rows}")
        return "\n".join(lines)

    @property
    def rows(self) -> dict[str, int]:
        """How many ratings `pair` and `split` hold, after the positives' filter of ranking."""
        return {
            "source": len(self.pair.source),
            "train": len(self.split.train),
            "valid": len(self.split.valid),
            "test": len(self.split.test),
            "revealed": len(self.split.revealed),
        }


def _hash_of(*parts: Ratings) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for array in (part.user, part.item, part.rating):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _read_in_order(path: Path, **options: Any) -> pd.DataFrame:
    """What `read_inter` gives, in the order of users and time: so kept, it is not sorted again."""
    frame = read_inter(path, **options)
    user, item, rating, *time = (frame[name] for name in frame)
    order = row_order(
        user.cat.codes.to_numpy(),
        item.cat.codes.to_numpy(),
        rating.to_numpy(),
        time[0].to_numpy() if time else None,
    )
    return frame if order is None else frame.iloc[order].reset_index(drop=True)


def _positives(pair: Pair, threshold: float) -> Pair:
    return dataclasses.replace(
        pair, source=pair.source.at_least(threshold), target=pair.target.at_least(threshold)
    )
