/** One theme for every page. */
import {
  ActionIcon, Badge, Button, Card, createTheme, Drawer, type MantineColorsTuple, Menu, Modal, Paper, Table, Tooltip,
} from "@mantine/core";

const brand: MantineColorsTuple = [
  "#eeeeff", "#dcdcfd", "#b6b6f7", "#8f8df2", "#6e6bee", "#5b57eb", "#514de0", "#4540c4", "#3c38ae", "#312e97",
];

/** A dark grey with a touch of the brand's blue. */
const dark: MantineColorsTuple = [
  "#d3d5e0", "#b4b7c6", "#8d91a5", "#63677c", "#3a3d50", "#2c2e3f", "#1d1f2b", "#171822", "#12131a", "#0c0d12",
];

export const theme = createTheme({
  colors: { brand, dark },
  primaryColor: "brand",
  primaryShade: { light: 6, dark: 5 },
  autoContrast: true,
  defaultRadius: "md",
  cursorType: "pointer",
  fontFamily: '"Inter Variable", system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "JetBrains Mono", "SF Mono", Menlo, Consolas, monospace',
  headings: { fontWeight: "650" },
  components: {
    Modal: Modal.extend({ defaultProps: { centered: true, radius: "lg", overlayProps: { backgroundOpacity: 0.5, blur: 3 } } }),
    Drawer: Drawer.extend({ defaultProps: { position: "right", overlayProps: { backgroundOpacity: 0.35 } } }),
    Card: Card.extend({ defaultProps: { withBorder: true, radius: "lg", padding: "lg" } }),
    Paper: Paper.extend({ defaultProps: { radius: "lg" } }),
    Badge: Badge.extend({ defaultProps: { variant: "light", tt: "none", fw: 600 } }),
    Button: Button.extend({ defaultProps: { fw: 600 } }),
    ActionIcon: ActionIcon.extend({ defaultProps: { variant: "subtle", color: "gray" } }),
    Menu: Menu.extend({ defaultProps: { shadow: "lg", radius: "md", position: "bottom-end" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, withArrow: true } }),
    Table: Table.extend({ defaultProps: { verticalSpacing: "sm", horizontalSpacing: "md" } }),
  },
});
