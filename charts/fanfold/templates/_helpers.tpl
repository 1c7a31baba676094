{{- define "fanfold.name" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "fanfold.version" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{- define "fanfold.selector" -}}
app.kubernetes.io/name: fanfold-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fanfold.labels" -}}
{{ include "fanfold.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: fanfold
app.kubernetes.io/version: {{ include "fanfold.version" . | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What the operator may do in the namespaces it serves; each rule says why. */}}
{{- define "fanfold.rules" -}}
# Its own resources: it writes services and rings, and the status of all.
- apiGroups: [fanfold.dev]
  resources: [platforms]
  verbs: [get, list, watch]
- apiGroups: [fanfold.dev]
  resources: [platformservices, hashrings]
  verbs: [get, list, watch, create, patch, delete]
# Load tests: of an upgrade's gate it makes them, finished ones it deletes when their time has come.
- apiGroups: [fanfold.dev]
  resources: [loadtests]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [fanfold.dev]
  resources: [platforms/status, platformservices/status, hashrings/status, loadtests/status]
  verbs: [patch]
# Workers are scaled by the operator itself where KEDA is not there.
- apiGroups: [fanfold.dev]
  resources: [platformservices/scale]
  verbs: [patch]
# Owner references that block deletion of the owner need this where the admission plugin
# OwnerReferencesPermissionEnforcement is on.
- apiGroups: [fanfold.dev]
  resources: [platforms/finalizers, platformservices/finalizers, hashrings/finalizers, loadtests/finalizers]
  verbs: [update]
# What a platform is made of. list and watch repair what is changed or deleted by hand.
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Where KEDA or the Gateway API is there: workers scale by it, a Platform may ask to be reached by it.
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The gateway's right to read its snapshot. A right can only be granted by who has it: see configmaps above.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
# Generated credentials, and whether Secrets named in a spec are there. Neither list nor watch nor delete.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
# Members of the ring.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Whether a volume is left over from lost credentials; the node's address for the URL of a NodePort.
- apiGroups: [""]
  resources: [persistentvolumeclaims, pods]
  verbs: [get]
# Pods of a load test, by its label: where they are reached, why they do not start, what they said at their end.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# What a load test with `acts` has done: a pod of its Platform goes as a drained node has it, budgets count.
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# What happened, for kubectl describe.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, patch]
{{- end -}}
