{{/*
What no schema can say: values that contradict each other. Each failure is a sentence that names the values.
*/}}
{{- define "stream-guard.checks" -}}
{{- include "stream-guard.checkKafka" . -}}
{{- include "stream-guard.checkReplicas" . -}}
{{- include "stream-guard.checkTimes" . -}}
{{- include "stream-guard.checkModel" . -}}
{{- include "stream-guard.checkPolicies" . -}}
{{- include "stream-guard.checkEnv" . -}}
{{- include "stream-guard.checkBackfill" . -}}
{{- include "stream-guard.checkConsole" . -}}
{{- include "stream-guard.checkLive" . -}}
{{- end -}}

{{- define "stream-guard.checkKafka" -}}
{{- $kafka := .Values.kafka -}}
{{- $security := $kafka.security -}}
{{- if not $kafka.bootstrapServers -}}
{{- fail "kafka.bootstrapServers is empty: name the brokers, for example kafka.kafka.svc:9092" -}}
{{- end -}}
{{- if and $kafka.topics $kafka.topicPattern -}}
{{- fail "kafka.topics and kafka.topicPattern exclude each other; set one" -}}
{{- end -}}
{{- if not (or $kafka.topics $kafka.topicPattern (dig "cascade" "escalated_topic" "" .Values.config)) -}}
{{- fail "kafka.topics is empty: name the topics to read, for example [posts], or set kafka.topicPattern" -}}
{{- end -}}
{{- $sasl := hasPrefix "SASL" $security.protocol -}}
{{- if and $sasl (not $security.saslMechanism) -}}
{{- fail (printf "kafka.security.saslMechanism is required with kafka.security.protocol %s, for example SCRAM-SHA-512" $security.protocol) -}}
{{- end -}}
{{- if and (not $sasl) $security.saslMechanism -}}
{{- fail (printf "kafka.security.saslMechanism %s needs kafka.security.protocol SASL_SSL or SASL_PLAINTEXT, not %s" $security.saslMechanism $security.protocol) -}}
{{- end -}}
{{- if eq $security.saslMechanism "OAUTHBEARER" -}}
{{- if not (or $security.oauthTokenHook $security.oauthTokenFile) -}}
{{- fail "kafka.security.oauthTokenHook is required with OAUTHBEARER, for example my_auth:token; or set oauthTokenFile" -}}
{{- end -}}
{{- if and $security.oauthTokenHook $security.oauthTokenFile -}}
{{- fail "kafka.security.oauthTokenHook and kafka.security.oauthTokenFile exclude each other; set one" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.authenticationRef) -}}
{{- fail "autoscaling.authenticationRef is required with OAUTHBEARER: KEDA needs a TriggerAuthentication of its own to read the lag" -}}
{{- end -}}
{{- else if and $sasl (not $security.saslSecret.name) -}}
{{- fail (printf "kafka.security.saslSecret.name is required with %s: name a Secret with the user's name and password" $security.saslMechanism) -}}
{{- end -}}
{{- if not (has $security.protocol (list "SSL" "SASL_SSL")) -}}
{{- if or $security.caSecret.name $security.clientSecret.name -}}
{{- fail (printf "kafka.security.caSecret and kafka.security.clientSecret need kafka.security.protocol SSL or SASL_SSL, not %s" $security.protocol) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkReplicas" -}}
{{- $scaling := .Values.autoscaling -}}
{{- $partitions := .Values.kafka.partitions | int -}}
{{- if and $scaling.enabled (not $partitions) -}}
{{- fail "kafka.partitions is required with autoscaling.enabled: more replicas than partitions would hold GPUs and judge nothing" -}}
{{- end -}}
{{- $most := include "stream-guard.replicasMax" . | int -}}
{{- $named := ternary "autoscaling.maxReplicas" "replicas" $scaling.enabled -}}
{{- if and $partitions (gt $most $partitions) -}}
{{- fail (printf "%s (%d) is above kafka.partitions (%d): the replicas beyond would hold GPUs and judge nothing" $named $most $partitions) -}}
{{- end -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) $most) -}}
{{- fail (printf "autoscaling.minReplicas (%d) is above autoscaling.maxReplicas (%d)" (int $scaling.minReplicas) $most) -}}
{{- end -}}
{{- if has .Values.model.source (list "existingClaim" "newClaim") -}}
{{- $mode := (index .Values.model .Values.model.source).accessMode -}}
{{- if and (gt $most 1) (has $mode (list "ReadWriteOnce" "ReadWriteOncePod")) -}}
{{- fail (printf "%s (%d) is above 1, and model.%s.accessMode %s lets one node mount the model: use ReadWriteMany or ReadOnlyMany, or cache.type claimPerReplica with model.source none" $named $most .Values.model.source $mode) -}}
{{- end -}}
{{- end -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- if $budget.enabled -}}
{{- $fewest := ternary (int $scaling.minReplicas) (int .Values.replicas) $scaling.enabled -}}
{{- if and (kindIs "float64" $budget.minAvailable) (gt $fewest 0) (ge (int $budget.minAvailable) $fewest) -}}
{{- fail (printf "podDisruptionBudget.minAvailable (%d) must be below the replicas (%d): a node with one could never be drained" (int $budget.minAvailable) $fewest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkTimes" -}}
{{- $stop := include "stream-guard.stopSeconds" . | float64 -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $stop -}}
{{- fail (printf "terminationGracePeriodSeconds (%v) must exceed %v s: config.delivery.drain_timeout_s (%s) + commit_timeout_s (%s) + 3 x stop_timeout_s (%s) + 10"
  .Values.terminationGracePeriodSeconds $stop
  (include "stream-guard.setting" (list . "delivery" "drain_timeout_s"))
  (include "stream-guard.setting" (list . "delivery" "commit_timeout_s"))
  (include "stream-guard.setting" (list . "delivery" "stop_timeout_s"))) -}}
{{- end -}}
{{- $start := include "stream-guard.setting" (list . "engine" "start_timeout_s") | float64 -}}
{{- $probe := mul (int .Values.startupProbe.periodSeconds) (int .Values.startupProbe.failureThreshold) -}}
{{- if le (float64 $probe) $start -}}
{{- fail (printf "startupProbe.periodSeconds (%v) x startupProbe.failureThreshold (%v) = %d s must exceed config.engine.start_timeout_s (%v): the pod would be killed while the model loads" .Values.startupProbe.periodSeconds .Values.startupProbe.failureThreshold $probe $start) -}}
{{- end -}}
{{- $drain := include "stream-guard.setting" (list . "delivery" "drain_timeout_s") | float64 -}}
{{- $rebalance := include "stream-guard.setting" (list . "kafka" "rebalance_timeout_ms") | float64 -}}
{{- if lt $rebalance (mulf 1000 (addf $drain 5)) -}}
{{- fail (printf "config.kafka.rebalance_timeout_ms (%v) must exceed config.delivery.drain_timeout_s (%v) by 5 s, kept for the flush and the last commit" $rebalance $drain) -}}
{{- end -}}
{{- $session := include "stream-guard.setting" (list . "kafka" "session_timeout_ms") | float64 -}}
{{- $heartbeat := include "stream-guard.setting" (list . "kafka" "heartbeat_interval_ms") | float64 -}}
{{- if gt (mulf 3 $heartbeat) $session -}}
{{- fail (printf "config.kafka.heartbeat_interval_ms (%v) must be at most a third of config.kafka.session_timeout_ms (%v)" $heartbeat $session) -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkModel" -}}
{{- $model := .Values.model -}}
{{- if and (eq $model.source "existingClaim") (not $model.existingClaim.name) -}}
{{- fail "model.existingClaim.name is required with model.source existingClaim" -}}
{{- end -}}
{{- if and (eq $model.source "hostPath") (not $model.hostPath.path) -}}
{{- fail "model.hostPath.path is required with model.source hostPath" -}}
{{- end -}}
{{- if eq $model.source "image" -}}
{{- if not $model.image.reference -}}
{{- fail "model.image.reference is required with model.source image" -}}
{{- end -}}
{{- if semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "model.source image needs Kubernetes 1.31 or newer, and this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if and (include "stream-guard.modelFromHub" .) (not $model.name) -}}
{{- fail (printf "model.name is required with model.source %s: it is what is downloaded" $model.source) -}}
{{- end -}}
{{- if and (not (include "stream-guard.modelFromHub" .)) $model.hubTokenSecret.name -}}
{{- fail (printf "model.hubTokenSecret is for what is downloaded, and with model.source %s nothing is" $model.source) -}}
{{- end -}}
{{- $sharing := include "stream-guard.setting" (list . "engine" "tensor_parallel_size") | int -}}
{{- if and (ne (int .Values.gpu.count) $sharing) (not (and (eq (int .Values.gpu.count) 0) (eq $sharing 1))) -}}
{{- fail (printf "gpu.count (%v) must equal config.engine.tensor_parallel_size (%d): a replica has one copy of the model on all of its GPUs" .Values.gpu.count $sharing) -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkPolicies" -}}
{{- $policies := .Values.policies -}}
{{- if eq $policies.source "values" -}}
{{- if not $policies.files -}}
{{- fail "policies.files is empty: give at least one policy, or take them from policies.source existingConfigMap, gitSync or path" -}}
{{- end -}}
{{- if and (gt (len $policies.files) 1) (not $policies.routes) -}}
{{- fail (printf "policies.routes is empty, and policies.files has %d policies: say which judge which topic, for example 'default: [%s]'" (len $policies.files) (keys $policies.files | sortAlpha | first)) -}}
{{- end -}}
{{- $bytes := len $policies.routes -}}
{{- range $policies.files -}}
{{- range $text := . -}}
{{- $bytes = add $bytes (len $text) -}}
{{- end -}}
{{- end -}}
{{- if gt $bytes 1000000 -}}
{{- fail (printf "policies.files has %d bytes, and a ConfigMap holds 1 MiB: use policies.source gitSync" $bytes) -}}
{{- end -}}
{{- else if or $policies.files $policies.routes -}}
{{- fail (printf "policies.files and policies.routes are for policies.source values, and it is %s" $policies.source) -}}
{{- end -}}
{{- if eq $policies.source "existingConfigMap" -}}
{{- if not (and $policies.existingConfigMap.name $policies.existingConfigMap.items) -}}
{{- fail "policies.existingConfigMap.name and policies.existingConfigMap.items are required with policies.source existingConfigMap: a ConfigMap has no folders, so items says which key is which <id>/policy.md" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $policies.source "gitSync") (not $policies.gitSync.repo) -}}
{{- fail "policies.gitSync.repo is required with policies.source gitSync" -}}
{{- end -}}
{{- if and (eq $policies.source "path") (not $policies.path) -}}
{{- fail "policies.path is required with policies.source path" -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkEnv" -}}
{{- $seen := dict -}}
{{- range include "stream-guard.consumerEnv" . | fromYamlArray -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "extraEnv: %s is set by the chart or twice; use the chart's value for it, or config" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}

{{/*
What Kubernetes never changes in a StatefulSet that exists. Its own answer is "updates to statefulset spec for fields
other than ... are forbidden", after the other objects have changed. `--cascade=orphan` keeps the pods, which the new
StatefulSet takes over; it cannot take over pods that lack its claim.
*/}}
{{- define "stream-guard.checkLive" -}}
{{- $live := include "stream-guard.live" . | fromJson -}}
{{- if $live -}}
{{- $spec := $live.spec -}}
{{- $delete := printf "kubectl -n %s delete statefulset %s" .Release.Namespace (include "stream-guard.fullname" .) -}}
{{- $orphan := printf "delete the StatefulSet but not its pods (%s --cascade=orphan), then upgrade again" $delete -}}
{{- $restart := printf "delete the StatefulSet and its pods (%s), then upgrade again; the pods start anew, and no post is lost" $delete -}}
{{- if ne $spec.podManagementPolicy .Values.podManagementPolicy -}}
{{- fail (printf "podManagementPolicy cannot change from %s to %s in place: %s" $spec.podManagementPolicy .Values.podManagementPolicy $orphan) -}}
{{- end -}}
{{- $labels := include "stream-guard.selectorLabels" . | fromYaml -}}
{{- if ne (toJson $spec.selector.matchLabels) (toJson $labels) -}}
{{- fail (printf "nameOverride cannot change in place: the pods' labels follow from it; %s" $restart) -}}
{{- end -}}
{{- $claims := default list (get $spec "volumeClaimTemplates") -}}
{{- $claimed := eq .Values.cache.type "claimPerReplica" -}}
{{- if ne (gt (len $claims) 0) $claimed -}}
{{- fail (printf "cache.type cannot change from %s to %s in place: %s" (ternary "claimPerReplica" "emptyDir" (gt (len $claims) 0)) .Values.cache.type $restart) -}}
{{- end -}}
{{- if $claimed -}}
{{- $claim := (first $claims).spec -}}
{{- if ne (include "stream-guard.bytes" $claim.resources.requests.storage) (include "stream-guard.bytes" .Values.cache.size) -}}
{{- fail (printf "cache.size cannot change from %s to %s in place: %s; claims that exist keep their size until you change them (kubectl patch pvc)" $claim.resources.requests.storage .Values.cache.size $orphan) -}}
{{- end -}}
{{- $class := default "" (get $claim "storageClassName") -}}
{{- if and .Values.cache.storageClassName (ne $class .Values.cache.storageClassName) -}}
{{- fail (printf "cache.storageClassName cannot change from %q to %q in place: %s; claims that exist keep their class" $class .Values.cache.storageClassName $orphan) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.checkBackfill" -}}
{{- with .Values.backfill -}}
{{- if and .enabled (eq .kind "RayJob") (not .args) -}}
{{- fail "backfill.args is empty: say what to judge, for example [\"topic:posts\", \"--policy\", \"spam\", \"--out\", \"/backfill/spam\"]" -}}
{{- end -}}
{{- range list "--address" "--actors" "--cpus" "--gpus" -}}
{{- if and $.Values.backfill.enabled (has . $.Values.backfill.args) -}}
{{- fail (printf "backfill.args has %s, which the chart sets: by backfill.actors and gpu.count" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
