import { Tabs } from "@mantine/core";
import { IconActivityHeartbeat, IconAppWindow, IconServer2, IconStack2, IconUsers } from "@tabler/icons-react";
import { Suspense } from "react";
import { Outlet, useLocation, useNavigate } from "react-router";
import { useUser } from "../api/backend";
import { PageLoader } from "../shell/page-loader";

export default function AdminLayout() {
  const user = useUser();
  const navigate = useNavigate();
  const { pathname } = useLocation();
  const tabs = [
    { to: "/admin/clusters", text: "Clusters", Icon: IconServer2 },
    { to: "/admin/catalogs", text: "Catalogs", Icon: IconStack2 },
    { to: "/admin/sessions", text: "Sessions", Icon: IconAppWindow },
    { to: "/admin/operations", text: "Operations", Icon: IconActivityHeartbeat },
    ...(user.role === "admin" ? [{ to: "/admin/users", text: "Users", Icon: IconUsers }] : []),
  ];
  return (
    <>
      <Tabs value={pathname} onChange={(to) => to && void navigate(to)} mb="xl" activateTabWithKeyboard={false}>
        <Tabs.List aria-label="Administration" style={{ flexWrap: "nowrap", overflowX: "auto", overflowY: "hidden" }}>
          {tabs.map(({ to, text, Icon }) => (
            <Tabs.Tab key={to} value={to} leftSection={<Icon size={16} aria-hidden />}>
              {text}
            </Tabs.Tab>
          ))}
        </Tabs.List>
      </Tabs>
      <Suspense fallback={<PageLoader />}>
        <Outlet />
      </Suspense>
    </>
  );
}
