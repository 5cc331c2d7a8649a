{{- define "stream-guard.backfillCommand" -}}
stream-guard backfill
{{- range .Values.backfill.args }} {{ . | toString | replace "'" "'\\''" | squote }}{{ end }} --address auto --actors {{ .Values.backfill.actors }} --cpus 1 --gpus {{ .Values.gpu.count }}
{{- end -}}

{{/* A head that judges nothing, and a worker for each actor. */}}
{{- define "stream-guard.rayCluster" -}}
# The release of Ray in the image.
rayVersion: 2.60.0
headGroupSpec:
  rayStartParams: {num-cpus: "0", num-gpus: "0", dashboard-host: "0.0.0.0"}
  template:
    {{- include "stream-guard.rayPod" (list . "head") | nindent 4 }}
workerGroupSpecs:
  - groupName: actors
    replicas: {{ .Values.backfill.actors }}
    minReplicas: {{ .Values.backfill.actors }}
    maxReplicas: {{ .Values.backfill.actors }}
    # One core for Ray's own count, so that a worker has one actor; the engine uses what the pod has.
    rayStartParams: {num-cpus: "1", num-gpus: {{ .Values.gpu.count | quote }}, node-manager-port: "6380"}
    template:
      {{- include "stream-guard.rayPod" (list . "worker") | nindent 6 }}
{{- end -}}

{{/* The pod of a node: (list $ "head" or "worker"). Probes are given because KubeRay's own need wget in the image. */}}
{{- define "stream-guard.rayPod" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
metadata:
  labels:
    {{- include "stream-guard.instanceLabels" $ | nindent 4 }}
    app.kubernetes.io/component: backfill
spec:
  serviceAccountName: {{ include "stream-guard.serviceAccountName" $ }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- toYaml $.Values.podSecurityContext | nindent 4 }}
  {{- with $.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq $role "worker" }}
  {{- with $.Values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- if eq $.Values.policies.source "gitSync" }}
  initContainers:
    - name: policies-first
      {{- include "stream-guard.gitSync" (list $ true) | nindent 6 }}
  {{- end }}
  containers:
    - name: ray-{{ $role }}
      image: {{ printf "%s:%s" $.Values.backfill.image.repository (default $.Chart.AppVersion $.Values.backfill.image.tag) | quote }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      env:
        {{- include "stream-guard.consumerEnv" $ | nindent 8 }}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
      {{- with $.Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- $port := ternary 6379 6380 (eq $role "head") }}
      readinessProbe:
        tcpSocket: {port: {{ $port }}}
        periodSeconds: 5
        failureThreshold: 24
      livenessProbe:
        tcpSocket: {port: {{ $port }}}
        initialDelaySeconds: 60
        periodSeconds: 15
        failureThreshold: 8
      resources:
        {{- if eq $role "head" }}
        {{- toYaml $.Values.backfill.head.resources | nindent 8 }}
        {{- else }}
        {{- include "stream-guard.resources" $ | nindent 8 }}
        {{- end }}
      securityContext:
        {{- toYaml $.Values.securityContext | nindent 8 }}
      volumeMounts:
        {{- include "stream-guard.volumeMounts" $ | nindent 8 }}
        {{- if $.Values.backfill.claim }}
        - {name: backfill, mountPath: /backfill}
        {{- end }}
  volumes:
    {{- include "stream-guard.volumes" $ | nindent 4 }}
    {{- if ne $.Values.cache.type "emptyDir" }}
    # The claims of replicas are theirs.
    - name: cache
      emptyDir: {sizeLimit: {{ $.Values.cache.size | quote }}}
    {{- end }}
    {{- with $.Values.backfill.claim }}
    - name: backfill
      persistentVolumeClaim: {claimName: {{ . | quote }}}
    {{- end }}
{{- end -}}
