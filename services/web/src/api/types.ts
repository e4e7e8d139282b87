/** The shapes of the API, by the names the rest of the app uses. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Session = Schemas["Session"];
export type SessionState = Schemas["SessionState"];
export type SessionCommand = Schemas["SessionCommand"];
export type SessionPage = Schemas["SessionPage"];
export type Phase = Schemas["Phase"];
export type PhaseTiming = Schemas["PhaseTiming"];
export type Reason = Schemas["Reason"];
export type ViewerRole = Schemas["ViewerRole"];
export type Connection = Schemas["ConnectAnswer"];
export type NewSession = Schemas["CreateSessionBody"];
export type Accepted = Schemas["AcceptedAnswer"];
export type User = Schemas["User"];
export type Role = Schemas["Role"];
export type NewUser = Schemas["CreateUserBody"];
export type UserChange = Schemas["UpdateUserBody"];
export type TokenAnswer = Schemas["TokenAnswer"];
export type Template = Schemas["Template"];
export type TemplatePage = Schemas["TemplatePage"];
export type RuntimeKind = Schemas["RuntimeKind"];
export type OfferedRuntimes = Schemas["OfferedRuntimes"];
export type Catalog = Schemas["Catalog"];
export type NewCatalog = Schemas["AddCatalogBody"];
export type SyncReport = Schemas["SyncReport"];
export type FileOutcome = Schemas["FileOutcome"];
export type Cluster = Schemas["Cluster"];
export type ClusterList = Schemas["ClusterList"];
export type Presence = Schemas["Presence"];
export type Enrolment = Schemas["Enrolment"];
export type EnrolRequest = Schemas["EnrolClusterBody"];
export type DeadLetter = Schemas["DeadLetter"];
export type DeadLetterState = Schemas["DeadLetterState"];
export type HistoryEntry = Schemas["HistoryEntry"];
