/** Notifications with one look. */
import { notifications } from "@mantine/notifications";
import { IconAlertCircle, IconCheck } from "@tabler/icons-react";
import { explain } from "../api/problem";

export function notifyError(error: unknown): void {
  const { title, detail, hint } = explain(error);
  notifications.show({
    color: "red",
    icon: <IconAlertCircle size={18} aria-hidden />,
    title,
    message: hint ? `${detail} ${hint}` : detail,
    autoClose: 10_000,
  });
}

export function notifyDone(message: string): void {
  notifications.show({ color: "teal", icon: <IconCheck size={18} aria-hidden />, message, autoClose: 4_000 });
}
