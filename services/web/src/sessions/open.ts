/** Opens a session that serves its own web client, in its own origin. */
import type { Connection } from "../api/types";

/**
 * Posts the ticket to the session's own address in a new tab: a ticket in an address
 * would stay in histories and logs.
 */
export function openOwnOrigin(connection: Pick<Connection, "url" | "ticket">, target: string): void {
  const form = document.createElement("form");
  form.method = "POST";
  form.action = connection.url;
  form.target = target;
  form.hidden = true;
  const field = document.createElement("input");
  field.type = "hidden";
  field.name = "ticket";
  field.value = connection.ticket;
  form.append(field);
  document.body.append(form);
  form.submit();
  form.remove();
}
