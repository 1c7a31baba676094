"""The operator: does it lead, does it keep up, and what do its gateways know."""

from __future__ import annotations

from typing import Final

from dashboards.alerts import UPGRADE, UPGRADING
from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, quantile, quantiles, rate, series

SCOPE: Final = "{operator}"

BOARD: Final = Board(
    "operator",
    "Fanfold / Operator",
    "Leadership, reconciles, the queue, calls of the API server, the way of snapshots to gateways, upgrades.",
    (
        Row(
            "Leadership",
            (
                Panel(
                    "Leaders",
                    "short",
                    "1 is right. 0: nothing is repaired, scaled or rolled out.",
                    (("leaders", f"sum ({series('fanfold_operator_leader', scope=SCOPE)})"),),
                    kind="stat",
                    runbook="FanfoldOperatorLeaderless",
                ),
                Panel(
                    "Replicas",
                    "short",
                    "Operators that run; all but one stand by.",
                    (("replicas", f"count ({series('fanfold_operator_leader', scope=SCOPE)})"),),
                    kind="stat",
                    runbook="FanfoldOperatorLeaderless",
                ),
                Panel(
                    "Last watch event",
                    "s",
                    "Since something was heard of the API server. Silence on a busy cluster means a dead watch.",
                    (
                        (
                            "age",
                            "time() - max("
                            + series("fanfold_operator_last_event_timestamp_seconds", scope=SCOPE)
                            + ")",
                        ),
                    ),
                    kind="stat",
                ),
                Panel(
                    "Last full listing",
                    "s",
                    "It finds what a broken watch missed; every five minutes unless the chart says otherwise.",
                    (
                        (
                            "age",
                            "time() - max("
                            + series("fanfold_operator_last_resync_timestamp_seconds", scope=SCOPE)
                            + ")",
                        ),
                    ),
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Reconciles",
            (
                Panel(
                    "Reconciles",
                    "cps",
                    "By kind and result. Errors are tried again, up to a minute apart.",
                    (("{{kind}} {{result}}", rate("fanfold_operator_reconciles_total", "kind, result", scope=SCOPE)),),
                    runbook="FanfoldOperatorReconcileErrors",
                    stacked=True,
                ),
                Panel(
                    "Time of a reconcile",
                    "s",
                    "99th percentile by kind.",
                    (("{{kind}}", quantile(0.99, "fanfold_operator_reconcile_seconds", by="kind", scope=SCOPE)),),
                ),
                Panel(
                    "Calls to the API server",
                    "reqps",
                    "By status. 409: another writer; 429: the server is under pressure; 0: it was not reached.",
                    (("{{verb}} {{status}}", rate("fanfold_operator_api_calls_total", "verb, status", scope=SCOPE)),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Queue",
            (
                Panel(
                    "Keys waiting",
                    "short",
                    "Resources that are due and have no worker yet.",
                    (("{{pod}}", highest("fanfold_operator_queue_depth", "pod", scope=SCOPE)),),
                ),
                Panel(
                    "Oldest key",
                    "s",
                    "How long the oldest of them has waited.",
                    (("{{pod}}", highest("fanfold_operator_queue_oldest_seconds", "pod", scope=SCOPE)),),
                    runbook="FanfoldOperatorQueueStuck",
                    limit=60,
                ),
                Panel(
                    "Time in the queue",
                    "s",
                    "From due to taken.",
                    quantiles("fanfold_operator_queue_seconds", scope=SCOPE, of=(0.5, 0.99)),
                ),
            ),
        ),
        Row(
            "Ring and snapshot",
            (
                Panel(
                    "Changed ring to all gateways",
                    "s",
                    "Until every gateway used the snapshot. The aim is a 99th percentile under a second.",
                    quantiles("fanfold_operator_snapshot_propagation_seconds", scope=SCOPE, of=(0.5, 0.99)),
                    runbook="FanfoldSnapshotSlow",
                    limit=1,
                ),
                Panel(
                    "Lag of watches",
                    "s",
                    "From an object's change until its watch told of it.",
                    quantiles("fanfold_operator_event_lag_seconds", scope=SCOPE, of=(0.5, 0.99)),
                    runbook="FanfoldSnapshotSlow",
                ),
                Panel(
                    "Epoch of the ring",
                    "short",
                    "It rises with each change of endpoints: stairs while pods are replaced, flat at rest.",
                    (("{{namespace}}/{{platform}}", highest("fanfold_operator_ring_epoch", "namespace, platform")),),
                ),
            ),
        ),
        Row(
            "Upgrades",
            (
                Panel(
                    "Under way since",
                    "s",
                    "How long the upgrade of a platform has been in its phase. It waits while no gateway tells how"
                    " requests fare.",
                    (
                        (
                            "{{namespace}}/{{platform}} {{phase}}",
                            "time() - " + highest(UPGRADE, "namespace, platform, phase", UPGRADING, scope=SCOPE),
                        ),
                    ),
                    runbook="FanfoldUpgradeSlow",
                    limit=1800,
                    quiet="nothing is being upgraded",
                ),
                Panel(
                    "Phase of the newest upgrade",
                    "s",
                    "Of each platform, and for how long. RolledBack and Refused last until another version is wanted.",
                    (("", "time() - " + highest(UPGRADE, "namespace, platform, phase", scope=SCOPE)),),
                    kind="table",
                    runbook="FanfoldUpgradeFailed",
                ),
            ),
        ),
    ),
    served_by="operator",
)
